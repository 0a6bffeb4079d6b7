//! Costs as JSON.

use serde::Serialize;
use serde::ser::{SerializeStruct as _, Serializer};

use crate::bench::Cost;

impl Serialize for Cost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Cost", 12)?;
        fields.serialize_field("config", &self.config)?;
        fields.serialize_field("games", &self.games)?;
        fields.serialize_field("moves", &self.moves)?;
        fields.serialize_field("longest", &self.longest)?;
        fields.serialize_field("bound", &self.bound)?;
        fields.serialize_field("games_per_second", &self.games_per_second)?;
        fields.serialize_field("moves_per_second", &self.moves_per_second)?;
        fields.serialize_field("sampled_moves_per_second", &self.sampled_moves_per_second)?;
        fields.serialize_field("list_ns", &self.list_ns)?;
        fields.serialize_field("apply_ns", &self.apply_ns)?;
        fields.serialize_field("copy_ns", &self.copy_ns)?;
        fields.serialize_field("sample_ns", &self.sample_ns)?;
        fields.end()
    }
}
