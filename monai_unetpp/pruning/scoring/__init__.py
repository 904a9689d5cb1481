"""Score every level on labelled cases: the first stage of an evaluation."""

__all__: list[str] = []
