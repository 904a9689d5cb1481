"""Score every level on labelled cases: the first stage of an evaluation."""
