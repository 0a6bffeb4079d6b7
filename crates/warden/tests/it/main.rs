//! The supervisor against real tasks, and workers as real processes.

// The attribute tells clippy that helpers of tests may unwrap.
#[cfg(test)]
mod answers;
#[cfg(test)]
mod chance;
#[cfg(test)]
mod conditions;
#[cfg(test)]
mod lives;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod puppet;
#[cfg(test)]
mod restarts;
mod supervision;
#[cfg(test)]
mod threads;
#[cfg(test)]
mod workers;
