"""Tables, comparisons and re-judged verdicts from result folders."""
