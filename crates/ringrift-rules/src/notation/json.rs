//! Positions as JSON: the start boards of the reference games and positions for display.
