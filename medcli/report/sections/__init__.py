"""The sections of a report, a module for each group of them; every function returns one `Section`."""
