//! Published vectors, read in place where they exist.
