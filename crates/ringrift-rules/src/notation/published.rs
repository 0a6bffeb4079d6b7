//! States and moves in the JSON of the original project, as in its published test vectors
//! (section 16 of the specification, `vectors/README.md`).

use serde_json::Value;

use super::json::{BoardText, Position, PositionError, Reader, SwapText};
use crate::cellset::{CellSet, Region};
use crate::config::{Board, Config, Options, Seat};
use crate::geometry::CellId;
use crate::moves::{EliminationContext, Move, Recovery, Run};
use crate::state::{Phase, State};
use crate::victory::Departure;

/// Types of moves that change the board (section 2, "Turn actions").
const BOARD_CHANGING: [&str; 10] = [
    "place_ring",
    "move_stack",
    "overtaking_capture",
    "continue_capture_segment",
    "recovery_slide",
    "process_line",
    "choose_line_option",
    "choose_territory_option",
    "eliminate_rings_from_stack",
    "forced_elimination",
];

/// The current name of a type of move; old fixtures use old ones.
fn current_name(name: &str) -> &str {
    match name {
        "choose_line_reward" => "choose_line_option",
        "process_territory_region" => "choose_territory_option",
        "move_ring" => "move_stack",
        other => other,
    }
}

fn missing(field: &'static str) -> PositionError {
    PositionError::Field { field }
}

fn text<'a>(value: &'a Value, field: &'static str) -> Result<&'a str, PositionError> {
    value[field].as_str().ok_or_else(|| missing(field))
}

fn number<T: TryFrom<u64>>(value: &Value, field: &'static str) -> Result<T, PositionError> {
    value[field].as_u64().and_then(|n| T::try_from(n).ok()).ok_or_else(|| missing(field))
}

/// Reads a state of a running game. Counters that contradict the board are taken as given, but for
/// territory; thresholds that are absent are computed.
///
/// # Errors
/// If it is no state of one of the twelve configurations.
pub fn state(value: &Value) -> Result<State, PositionError> {
    // Snapshots have no `board`: what belongs to it stands beside the players.
    let board = if value["board"].is_object() { &value["board"] } else { value };
    let players = value["players"].as_array().ok_or_else(|| missing("players"))?;
    let config = config(value, board, players.len())?;

    let seat: u8 = number(value, "currentPlayer")?;
    let phase = text(value, "currentPhase")?;
    let mut position = Position::at_turn_start(
        Reader::new(config).seat(seat.into())?,
        &by_seat(players, "ringsInHand")?,
        &by_seat(players, "eliminatedRings")?,
        self::board(board)?,
    );
    let status = value["gameStatus"].as_str().unwrap_or("active");
    let over = phase == Phase::GameOver.name() || OVER.contains(&status);
    if phase != Phase::GameOver.name() {
        phase.clone_into(&mut position.ph);
    }
    position.pay = u8::from(value["pendingLineRewardElimination"] == true);
    position.must = value["mustMoveFromStackKey"].as_str().map(str::to_owned);
    if phase == Phase::ChainCapture.name() {
        position.chain = place_key(&value["chainCapturePosition"]);
    }
    remember(&mut position, value["moveHistory"].as_array().map_or(&[], Vec::as_slice));

    let mut state = position.state(config, options(value))?;
    let threshold = |field: &str| value[field].as_u64().and_then(|n| u32::try_from(n).ok());
    if let Some(rings) = threshold("victoryThreshold") {
        state.limits.ring_victory = rings;
    }
    let legacy = || threshold("territoryVictoryThreshold");
    if let Some(cells) = threshold("territoryVictoryMinimum").or_else(legacy) {
        state.limits.territory = cells;
    }
    if over {
        state.turn.phase = Phase::GameOver;
    }
    Ok(state)
}

/// `gameStatus` of a game that is over.
const OVER: [&str; 3] = ["completed", "finished", "abandoned"];

fn config(value: &Value, board: &Value, players: usize) -> Result<Config, PositionError> {
    let name = board["type"].as_str().or_else(|| value["boardType"].as_str());
    let name = name.ok_or_else(|| missing("board.type"))?;
    let known = Board::ALL.into_iter().find(|board| board.name() == name);
    let known = known.ok_or_else(|| PositionError::Board { found: name.to_owned() })?;
    // Old hexagons count their radius plus one.
    let sizes: &[u64] = match known {
        Board::Square8 => &[8],
        Board::Square19 => &[19],
        Board::Hex8 => &[9, 5],
        Board::Hexagonal => &[25, 13],
    };
    if let Some(size) = board["size"].as_u64().filter(|size| !sizes.contains(size)) {
        return Err(PositionError::Size { board: known, found: size });
    }
    let players = u8::try_from(players).ok().filter(|n| (2..=4).contains(n));
    let players = players.ok_or_else(|| missing("players"))?;
    Ok(Config { board: known, players })
}

fn options(value: &Value) -> Options {
    let given = &value["rulesOptions"];
    let small = |value: &Value| value.as_u64().and_then(|n| u8::try_from(n).ok());
    Options {
        swap_rule: given["swapRuleEnabled"] == true,
        rings_per_player: given["ringsPerPlayer"].as_u64().and_then(|n| u16::try_from(n).ok()),
        lps_rounds: small(&value["lpsRoundsRequired"])
            .or_else(|| small(&given["lpsRoundsRequired"]))
            .unwrap_or(Options::default().lps_rounds),
    }
}

fn by_seat(players: &[Value], field: &'static str) -> Result<Vec<u16>, PositionError> {
    let mut numbers = vec![0; players.len()];
    for player in players {
        let seat: usize = number(player, "playerNumber")?;
        let place = seat.checked_sub(1).and_then(|at| numbers.get_mut(at));
        *place.ok_or_else(|| missing("playerNumber"))? = number(player, field)?;
    }
    Ok(numbers)
}

fn board(value: &Value) -> Result<BoardText, PositionError> {
    let owner = |value: &Value| value.as_u64().and_then(|n| u8::try_from(n).ok());
    let mut board = BoardText::default();
    for (key, stack) in entries(value, "stacks")? {
        let rings = stack["rings"].as_array().ok_or_else(|| missing("rings"))?;
        let rings: Option<Vec<u8>> = rings.iter().map(owner).collect();
        board.stacks.insert(key, rings.ok_or_else(|| missing("rings"))?);
    }
    for (key, marker) in entries(value, "markers")? {
        let seat = owner(&marker["player"]).ok_or_else(|| missing("player"))?;
        board.markers.insert(key, seat);
    }
    for (key, seat) in entries(value, "collapsedSpaces")? {
        let seat = owner(seat).or_else(|| owner(&seat["player"]));
        board.collapsed.insert(key, seat.ok_or_else(|| missing("collapsedSpaces"))?);
    }
    Ok(board)
}

/// What stands on the board, by key of its cell: a map, or the list that snapshots have.
fn entries<'a>(
    board: &'a Value,
    field: &'static str,
) -> Result<Vec<(String, &'a Value)>, PositionError> {
    match &board[field] {
        Value::Null => Ok(Vec::new()),
        Value::Object(map) => Ok(map.iter().map(|(key, value)| (key.clone(), value)).collect()),
        Value::Array(list) => list
            .iter()
            .map(|value| {
                let key = value["key"].as_str().map(str::to_owned);
                let key = key.or_else(|| place_key(&value["position"]));
                Ok((key.ok_or_else(|| missing(field))?, value))
            })
            .collect(),
        _ => Err(missing(field)),
    }
}

/// Text key of `{x, y, z?}`.
fn place_key(place: &Value) -> Option<String> {
    let (x, y) = (place["x"].as_i64()?, place["y"].as_i64()?);
    Some(place["z"].as_i64().map_or_else(|| format!("{x},{y}"), |z| format!("{x},{y},{z}")))
}

/// What the recorded moves say about the turn: its memory, the stack that may capture, a region
/// whose payment is due, the pie rule.
fn remember(position: &mut Position, history: &[Value]) {
    let kind = |mv: &Value| current_name(mv["type"].as_str().unwrap_or_default()).to_owned();
    let own = |mv: &&Value| mv["player"] == position.pl;
    for mv in history.iter().rev().take_while(own) {
        let kind = kind(mv);
        position.acted |= u8::from(BOARD_CHANGING.contains(&kind.as_str()));
        position.recovered |= u8::from(kind == "recovery_slide");
    }
    if let Some(last) = history.last().filter(own) {
        if position.ph == Phase::Capture.name() {
            position.land = place_key(&last["to"]);
        }
        if position.ph == Phase::TerritoryProcessing.name()
            && kind(last) == "choose_territory_option"
        {
            position.region = Some(Vec::new());
        }
    }
    let moved = |seat: u8| u8::from(history.iter().any(|mv| mv["player"] == seat));
    let used = u8::from(history.iter().any(|mv| kind(mv) == "swap_sides"));
    position.swap = Some(SwapText { p1moved: moved(1), p2moved: moved(2), used });
}

/// How a player leaves a game, if that is what a move says; it may be recorded in any phase.
///
/// # Errors
/// If no seat of the game leaves.
pub fn read_departure(
    state: &State,
    value: &Value,
) -> Result<Option<(Seat, Departure)>, PositionError> {
    let how = match value["type"].as_str() {
        Some("resign") => Departure::Resignation,
        Some("timeout") => Departure::Timeout,
        _ => return Ok(None),
    };
    let seat = Reader::new(state.config()).seat(number(value, "player")?)?;
    Ok(Some((seat, how)))
}

/// Reads a move for a state, whether or not it is legal there.
///
/// # Errors
/// If it is incomplete, of an unknown type, not of this board, or of a player who is not to move.
pub fn read_move(state: &State, value: &Value) -> Result<Move, PositionError> {
    let reader = Reader::new(state.config());
    if value.get("player").is_some() {
        let player: u8 = number(value, "player")?;
        if player != state.to_move().number() {
            return Err(PositionError::Turn { found: player, seat: state.to_move() });
        }
    }
    let cell = |field: &'static str| place(&reader, &value[field], field);
    let kind = current_name(text(value, "type")?);
    Ok(match kind {
        "place_ring" => Move::PlaceRing {
            to: cell("to")?,
            count: if value["placementCount"].is_null() {
                1
            } else {
                number(value, "placementCount")?
            },
        },
        "skip_placement" => Move::SkipPlacement,
        "no_placement_action" => Move::NoPlacementAction,
        "swap_sides" => Move::SwapSides,
        "move_stack" => Move::MoveStack { from: cell("from")?, to: cell("to")? },
        "overtaking_capture" => Move::OvertakingCapture {
            from: cell("from")?,
            target: cell("captureTarget")?,
            to: cell("to")?,
        },
        "continue_capture_segment" => Move::ContinueCapture {
            from: cell("from")?,
            target: cell("captureTarget")?,
            to: cell("to")?,
        },
        "skip_capture" => Move::SkipCapture,
        "no_movement_action" => Move::NoMovementAction,
        "recovery_slide" => recovery(state, &reader, value)?,
        "skip_recovery" => Move::SkipRecovery,
        "process_line" => Move::ProcessLine(line(&reader, value)?),
        "choose_line_option" => {
            let line = line(&reader, value)?;
            let collapse = match &value["collapsedMarkers"] {
                Value::Null => line,
                cells => run(&reader, cells, "collapsedMarkers")?,
            };
            Move::ChooseLineOption { line, collapse }
        }
        "eliminate_rings_from_stack" => {
            let to = cell("to")?;
            match value["eliminationContext"].as_str().unwrap_or("territory") {
                "line" => Move::EliminateRings { context: EliminationContext::Line, to },
                "territory" => Move::EliminateRings { context: EliminationContext::Territory, to },
                "recovery" => Move::EliminateRings { context: EliminationContext::Recovery, to },
                "forced" => Move::ForcedElimination { to },
                _ => return Err(missing("eliminationContext")),
            }
        }
        "no_line_action" => Move::NoLineAction,
        "choose_territory_option" => {
            let wanted: Option<CellSet> = match &value["disconnectedRegions"][0]["spaces"] {
                Value::Null => None,
                spaces => Some(cells(&reader, spaces, "spaces")?.into_iter().collect()),
            };
            // Without its cells: the region on offer that the named cell belongs to.
            let to = if wanted.is_none() { Some(cell("to")?) } else { None };
            let fits = |region: &Region| {
                let cells = state.region_cells(*region);
                wanted == Some(cells) || to.is_some_and(|to| cells.contains(to))
            };
            let region = state.regions().into_iter().find(fits);
            Move::ChooseTerritory(region.ok_or(PositionError::Region)?)
        }
        "skip_territory_processing" => Move::SkipTerritory,
        "no_territory_action" => Move::NoTerritoryAction,
        "forced_elimination" => Move::ForcedElimination { to: cell("to")? },
        _ => return Err(missing("type")),
    })
}

fn place(reader: &Reader, value: &Value, field: &'static str) -> Result<CellId, PositionError> {
    reader.cell(&place_key(value).ok_or_else(|| missing(field))?)
}

fn cells(
    reader: &Reader,
    value: &Value,
    field: &'static str,
) -> Result<Vec<CellId>, PositionError> {
    let places = value.as_array().ok_or_else(|| missing(field))?;
    places.iter().map(|value| place(reader, value, field)).collect()
}

fn run(reader: &Reader, value: &Value, field: &'static str) -> Result<Run, PositionError> {
    let mut cells = cells(reader, value, field)?;
    cells.sort_unstable();
    Run::of_cells(reader.geometry, &cells).ok_or_else(|| missing(field))
}

fn line(reader: &Reader, value: &Value) -> Result<Run, PositionError> {
    run(reader, &value["formedLines"][0]["positions"], "formedLines")
}

fn recovery(state: &State, reader: &Reader, value: &Value) -> Result<Move, PositionError> {
    let payer = || {
        if let Some(key) = value["extractionStacks"][0].as_str() {
            return reader.cell(key);
        }
        // Nothing named: clear only where a single stack can pay (section 7).
        let mut payers = state.payers();
        match (payers.next(), payers.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(missing("extractionStacks")),
        }
    };
    let option = value["recoveryOption"].as_u64().or_else(|| value["option"].as_u64());
    let how = match (value["recoveryMode"].as_str().unwrap_or("line"), option) {
        ("line", Some(2)) => {
            Recovery::LineWindow(run(reader, &value["collapsePositions"], "collapsePositions")?)
        }
        ("line", _) => Recovery::Line { payer: payer()? },
        ("fallback", _) => Recovery::Fallback { payer: payer()? },
        ("stack_strike", _) => Recovery::StackStrike { payer: payer()? },
        _ => return Err(missing("recoveryMode")),
    };
    let (from, to) = (place(reader, &value["from"], "from")?, place(reader, &value["to"], "to")?);
    Ok(Move::RecoverySlide { from, to, how })
}
