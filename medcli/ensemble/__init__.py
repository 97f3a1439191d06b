"""Several trainings or several runs made into one run whose members' disagreement is measured."""
