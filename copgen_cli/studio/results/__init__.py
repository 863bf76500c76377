"""What came of a request: shown (`pictures`), judged (`scores`), and told as lines that make it again (`lines`)."""
