"""The upstream APIs: what each of them is (its card), what it said, and how it is asked."""
