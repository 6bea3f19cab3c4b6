"""Is a text the text of its page? Verdicts, measures and the ladder of what to try next. Pure."""
