//! Search and network inference: playing a game of RingRift
