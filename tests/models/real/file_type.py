from typing_extensions import TypedDict  # from typing, since Python 3.12


class Kind(TypedDict):
    label: str
    score: float


class FileType:
    """What kind of file these bytes are."""

    def __init__(self) -> None:
        from magika import Magika

        self._magika = Magika()

    def predict(self, content: bytes) -> Kind:
        found = self._magika.identify_bytes(content)
        return {"label": found.output.label, "score": found.score}
