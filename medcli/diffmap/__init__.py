"""What changed between two chest radiographs of one patient: pairs, registration, networks, maps, and their scores."""
