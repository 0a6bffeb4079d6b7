//! NPZ files: a zip of NumPy arrays. `numpy.load(allow_pickle=False)` reads what this writes.
//!
//! Only what we need: little-endian plain numbers, C order, no objects.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use fs_err::File;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::files::write_atomically;

/// First bytes of an array: magic and version 1.0 of the format.
const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";
/// Largest array that is read, in bytes: 4 GiB; more in a header is a damaged file.
const MOST_BYTES: u64 = 1 << 32;

/// A number that can be an element.
pub(crate) trait Element: Copy {
    /// `NumPy`'s name of the type.
    const TYPE: &'static str;
    /// Size in bytes.
    const SIZE: usize;
    /// Appends the little-endian bytes.
    fn put(self, out: &mut Vec<u8>);
    /// Reads `SIZE` little-endian bytes.
    fn take(bytes: &[u8]) -> Self;
}

macro_rules! element {
    ($type:ty, $name:literal) => {
        impl Element for $type {
            const TYPE: &'static str = $name;
            const SIZE: usize = size_of::<$type>();
            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<$type>()];
                raw.copy_from_slice(bytes);
                Self::from_le_bytes(raw)
            }
        }
    };
}
element!(u8, "|u1");
element!(i8, "|i1");
element!(u16, "<u2");
element!(i32, "<i4");
element!(i64, "<i8");
element!(f32, "<f4");

/// Collects arrays and writes them as one file.
#[derive(Default)]
pub(crate) struct NpzWriter {
    arrays: Vec<(&'static str, Vec<u8>)>,
}

impl NpzWriter {
    /// Adds an array; `shape` must fit the number of values.
    pub(crate) fn add<T: Element>(&mut self, name: &'static str, shape: &[usize], values: &[T]) {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        // A tuple of one needs its comma, and longer ones may have it.
        let lengths: Vec<String> = shape.iter().map(ToString::to_string).collect();
        let lengths = lengths.join(",") + ",";
        let mut header =
            format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({lengths}), }}", T::TYPE);
        // The data begins at a multiple of 64 bytes, and the header ends with a line feed.
        let padding = 63 - (MAGIC.len() + 2 + header.len()) % 64;
        header.extend(std::iter::repeat_n(' ', padding));
        header.push('\n');
        let length = u16::try_from(header.len()).expect("a header of a few dimensions is short");
        let mut bytes = Vec::with_capacity(MAGIC.len() + 2 + header.len() + values.len() * T::SIZE);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        for value in values {
            value.put(&mut bytes);
        }
        self.arrays.push((name, bytes));
    }

    /// Writes the file; equal arrays give equal bytes.
    pub(crate) fn write(self, path: &Path) -> anyhow::Result<()> {
        write_atomically(path, |file| {
            let mut zip = ZipWriter::new(file);
            // Level 1: the arrays are read more often than they are kept.
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .compression_level(Some(1))
                .last_modified_time(zip::DateTime::default())
                .large_file(true);
            for (name, bytes) in &self.arrays {
                zip.start_file(format!("{name}.npy"), options)?;
                zip.write_all(bytes)?;
            }
            zip.finish()?;
            Ok(())
        })
    }
}

/// An open file.
pub(crate) struct NpzReader {
    zip: ZipArchive<File>,
}

impl NpzReader {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let zip = ZipArchive::new(File::open(path)?)
            .with_context(|| format!("{} is no NPZ file", path.display()))?;
        Ok(Self { zip })
    }

    /// Reads an array of a known type: its shape and values. The zip's checksum is verified on the way.
    pub(crate) fn read<T: Element>(&mut self, name: &str) -> anyhow::Result<(Vec<usize>, Vec<T>)> {
        self.read_array(name).with_context(|| format!("read the array {name}"))
    }

    fn read_array<T: Element>(&mut self, name: &str) -> anyhow::Result<(Vec<usize>, Vec<T>)> {
        let mut entry = self.zip.by_name(&format!("{name}.npy"))?;
        let stated = entry.size();
        ensure!(stated <= MOST_BYTES, "it claims to have {stated} bytes");
        let mut bytes = Vec::new();
        // The stated size is a promise of the file; a hostile one may unpack to more.
        entry.by_ref().take(stated + 1).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 == stated, "it has another size than it claims");
        let rest = bytes.strip_prefix(MAGIC).context("it is no NumPy array of version 1.0")?;
        let (length, rest) = rest.split_first_chunk::<2>().context("it has no header")?;
        let length = usize::from(u16::from_le_bytes(*length));
        let (header, data) = rest.split_at_checked(length).context("its header is cut off")?;
        let shape = parse_header::<T>(std::str::from_utf8(header)?)?;
        let count = shape
            .iter()
            .try_fold(1_usize, |product, &length| product.checked_mul(length))
            .context("its shape is impossible")?;
        ensure!(
            count.checked_mul(T::SIZE) == Some(data.len()),
            "it has {} bytes, its shape {shape:?} needs {count} values",
            data.len()
        );
        Ok((shape, data.chunks_exact(T::SIZE).map(T::take).collect()))
    }
}

/// Shape of an array, from its header.
fn parse_header<T: Element>(header: &str) -> anyhow::Result<Vec<usize>> {
    let compact: String = header.chars().filter(|c| !c.is_whitespace()).collect();
    let wanted = format!("'descr':'{}'", T::TYPE);
    ensure!(compact.contains(&wanted), "its type is not {}: {}", T::TYPE, header.trim());
    ensure!(compact.contains("'fortran_order':False"), "it is in Fortran order");
    let Some((_, shape)) = compact.split_once("'shape':(") else { bail!("it has no shape") };
    let Some((shape, _)) = shape.split_once(')') else { bail!("its shape has no end") };
    shape
        .split(',')
        .filter(|length| !length.is_empty())
        .map(|length| length.parse().with_context(|| format!("its shape has a length {length:?}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(path: &Path) {
        let mut writer = NpzWriter::default();
        writer.add("matrix", &[2, 3], &[1.5_f32, 2.0, 3.0, 4.0, 5.0, -6.0]);
        writer.add("offsets", &[4], &[0_i64, 5, 7, 9]);
        writer.add::<u8>("nothing", &[0], &[]);
        writer.write(path).unwrap();
    }

    #[test]
    fn arrays_read_back_as_they_were_written_and_bytes_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a.npz"), folder.path().join("b.npz"));
        sample(&first);
        sample(&second);
        assert_eq!(fs_err::read(&first).unwrap(), fs_err::read(&second).unwrap());
        let mut reader = NpzReader::open(&first).unwrap();
        let (shape, values) = reader.read::<f32>("matrix").unwrap();
        assert_eq!((shape, values), (vec![2, 3], vec![1.5, 2.0, 3.0, 4.0, 5.0, -6.0]));
        assert_eq!(reader.read::<i64>("offsets").unwrap().1, [0, 5, 7, 9]);
        assert_eq!(reader.read::<u8>("nothing").unwrap().0, [0]);
    }

    #[test]
    fn a_wrong_type_a_missing_array_and_a_flipped_byte_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        sample(&path);
        let mut reader = NpzReader::open(&path).unwrap();
        let refused = |result: anyhow::Result<()>| format!("{:#}", result.unwrap_err());
        assert!(refused(reader.read::<i32>("matrix").map(drop)).contains("its type is not <i4"));
        assert!(refused(reader.read::<i32>("policy").map(drop)).contains("policy"));

        let mut bytes = fs_err::read(&path).unwrap();
        // The second byte of the packed data of the first array: local header 30 + name 10 + zip64 field 20.
        bytes[62] ^= 0x10;
        fs_err::write(&path, &bytes).unwrap();
        let damaged = NpzReader::open(&path).and_then(|mut file| file.read::<f32>("matrix"));
        assert!(damaged.is_err());
        fs_err::write(&path, b"no zip at all").unwrap();
        assert!(refused(NpzReader::open(&path).map(drop)).contains("is no NPZ file"));
    }
}
