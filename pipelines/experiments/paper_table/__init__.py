"""The paper's Tables 1 and 2: rows, plan, results, page."""
