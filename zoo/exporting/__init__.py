"""Trained models for other runtimes: how files of `zoo.exported`'s formats are written and checked."""
