//! Files by content hash: store, verify, trash, retention
