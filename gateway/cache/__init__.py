"""Answers that are given again: what makes two requests the same, how an answer is kept, and whom one answer serves."""
