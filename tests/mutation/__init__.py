"""Plants small bugs in the pure cores, one at a time, and sees which of them no test notices."""
