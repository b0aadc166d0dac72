from typing_extensions import TypedDict

from predictor import InvalidInput


class Line(TypedDict):
    text: str
    score: float


class Ocr:
    """The lines of text in a picture."""

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        self._ocr = RapidOCR(params={"Global.log_level": "error"})

    def predict(self, picture: bytes) -> list[Line]:
        try:
            found = self._ocr(picture)
        except OSError as error:
            raise InvalidInput("This is no picture, or is damaged.") from error
        lines = zip(found.txts or (), found.scores or (), strict=True)
        return [{"text": text, "score": score} for text, score in lines]
