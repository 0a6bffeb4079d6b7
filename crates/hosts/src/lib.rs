//! What a machine is: cores, memory, disk
