"""The files of annotation programs: what their formats are called and consist of, and writing events into them."""
