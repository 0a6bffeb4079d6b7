//! Facts: durable log, subscriber positions, dead letters, leases, rebuildable projections
