//! The daemons, one folder per category, and their registry
