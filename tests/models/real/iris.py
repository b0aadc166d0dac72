from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

Cm = Annotated[float, Field(gt=0, lt=100)]


class Flower(TypedDict):
    species: Literal["setosa", "versicolor", "virginica"]
    probabilities: dict[str, float]


class Iris:
    """Which iris a flower is, by the centimeters of its sepals and petals."""

    def __init__(self) -> None:
        from sklearn.datasets import load_iris
        from sklearn.linear_model import LogisticRegression

        flowers = load_iris()
        self._names = flowers.target_names.tolist()
        self._model = LogisticRegression(max_iter=1000).fit(flowers.data, flowers.target)

    def predict(
        self, sepal_length: Cm, sepal_width: Cm, petal_length: Cm, petal_width: Cm
    ) -> Flower:
        flower = [sepal_length, sepal_width, petal_length, petal_width]
        scores = dict(zip(self._names, self._model.predict_proba([flower])[0], strict=True))
        return {"species": max(scores, key=scores.__getitem__), "probabilities": scores}
