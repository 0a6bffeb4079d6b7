//! Supervision: daemon contract, order, lifecycle, restart, health, shutdown, worker processes
