//! The wall clock of this process, for commands that have no supervisor to ask.

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    warden::Clock::system().now_ms()
}
