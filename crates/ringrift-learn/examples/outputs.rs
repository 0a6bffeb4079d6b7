//! What a network says of every row of a sample file, for whoever writes the same network in another language.
//!
//! `cargo run -p ringrift-learn --example outputs -- WEIGHTS SAMPLES OUT`, for example
//! `candidate.safetensors window.npz outputs.npz`; the arrays of OUT are described in `src/outputs.rs`.

use std::path::Path;

use anyhow::bail;
use ringrift_learn::outputs;

#[expect(clippy::print_stdout, reason = "says what it did")]
fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [weights, samples, out] = &words[..] else {
        bail!("usage: outputs WEIGHTS SAMPLES OUT");
    };
    let rows = outputs::write(&fs_err::read(weights)?, Path::new(samples), Path::new(out))?;
    println!("{rows} rows");
    Ok(())
}
