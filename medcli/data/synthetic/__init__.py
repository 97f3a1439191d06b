"""Procedural phantom chest radiographs: data without files, the same everywhere, with a signal that has to be learnt.

`anatomy` says who is imaged, `findings` what is wrong, `frame` how the patient stands, `rendering` how the film is
made, `source` which cases make up a data set. Everything is drawn from seeds and nothing from a global random state.
"""
