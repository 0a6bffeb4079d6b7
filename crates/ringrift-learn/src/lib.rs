//! Self-play, samples, training, matches and ratings
