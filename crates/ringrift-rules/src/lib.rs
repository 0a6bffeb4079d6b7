//! The game RingRift: boards, moves, turn machine, scoring, notation
