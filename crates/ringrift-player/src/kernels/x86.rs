//! Sixteen numbers in the registers of x86-64.

use std::arch::x86_64::{
    __m256, __m512, __mmask16, _CMP_GT_OQ, _MM_HINT_T0, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32,
    _mm_movehl_ps, _mm_prefetch, _mm_shuffle_ps, _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps,
    _mm256_blendv_ps, _mm256_castpd_ps, _mm256_castps_si256, _mm256_castps256_ps128,
    _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_div_ps, _mm256_extractf128_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps, _mm256_movemask_ps, _mm256_mul_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_sqrt_ps,
    _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_castps_pd,
    _mm512_castps_si512, _mm512_castps512_ps256, _mm512_castsi512_ps, _mm512_cmp_ps_mask,
    _mm512_div_ps, _mm512_extractf64x4_pd, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_loadu_ps,
    _mm512_mask_mov_ps, _mm512_mask_storeu_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_min_ps,
    _mm512_mul_ps, _mm512_reduce_max_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_slli_epi32, _mm512_sqrt_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::lanes::{LANES, Lanes, ROUNDER};

/// An instruction beyond those that every processor of this kind has.
macro_rules! instruction {
    ($call:expr) => {{
        // SAFETY: the two types of this file are named only by operations that the macro `operations` compiles for the instructions
        // in question, and `Kernels` hands those out only where the processor has them. Memory is reached only through
        // references to sixteen numbers, or lane by lane within a slice.
        unsafe { $call }
    }};
}

/// One register of AVX-512.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

impl Lanes for Avx512 {
    const MANY: bool = true;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(instruction!(_mm512_set1_ps(x)))
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        Self(instruction!(_mm512_loadu_ps(values.as_ptr())))
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        instruction!(_mm512_storeu_ps(values.as_mut_ptr(), self.0));
    }

    #[inline(always)]
    fn load_part(values: &[f32], fill: f32) -> Self {
        let inside = inside(values.len());
        Self(instruction!(_mm512_mask_loadu_ps(_mm512_set1_ps(fill), inside, values.as_ptr())))
    }

    #[inline(always)]
    fn store_part(self, values: &mut [f32]) {
        let inside = inside(values.len());
        instruction!(_mm512_mask_storeu_ps(values.as_mut_ptr(), inside, self.0));
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Self(instruction!(_mm512_add_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        Self(instruction!(_mm512_sub_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        Self(instruction!(_mm512_mul_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn over(self, other: Self) -> Self {
        Self(instruction!(_mm512_div_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn root(self) -> Self {
        Self(instruction!(_mm512_sqrt_ps(self.0)))
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        Self(instruction!(_mm512_max_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        Self(instruction!(_mm512_min_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn times_plus(self, factor: Self, addend: Self) -> Self {
        Self(instruction!(_mm512_fmadd_ps(self.0, factor.0, addend.0)))
    }

    #[inline(always)]
    fn where_positive(self, gate: Self) -> Self {
        Self(instruction!({
            let open = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(gate.0, _mm512_setzero_ps());
            _mm512_maskz_mov_ps(open, self.0)
        }))
    }

    #[inline(always)]
    fn or_else(self, gate: Self, other: Self) -> Self {
        Self(instruction!({
            let open = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(gate.0, _mm512_setzero_ps());
            _mm512_mask_mov_ps(other.0, open, self.0)
        }))
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        Self(instruction!({
            let shifted = _mm512_castps_si512(_mm512_add_ps(self.0, _mm512_set1_ps(ROUNDER)));
            // The exponent's bias is added and the rounder's upper bits are shifted out.
            let biased = _mm512_add_epi32(shifted, _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }))
    }

    #[inline(always)]
    fn positive(self) -> u16 {
        instruction!(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_setzero_ps()))
    }

    #[inline(always)]
    fn announce(values: &[[f32; LANES]]) {
        announce(values);
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        instruction!({
            let upper = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0));
            let lower = _mm512_castps512_ps256(self.0);
            sum_of_eight(_mm256_add_ps(lower, _mm256_castpd_ps(upper)))
        })
    }

    #[inline(always)]
    fn highest(self) -> f32 {
        instruction!(_mm512_reduce_max_ps(self.0))
    }
}

/// Sixteen numbers are as much as the processor fetches at a time.
#[inline(always)]
fn announce(values: &[[f32; LANES]]) {
    for values in values {
        instruction!(_mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast()));
    }
}

/// A bit for each lane that lies within so many numbers.
#[inline(always)]
const fn inside(len: usize) -> __mmask16 {
    if len < LANES { (1 << len) - 1 } else { __mmask16::MAX }
}

/// Both halves of what AVX2 makes of the halves of its arguments.
macro_rules! halves {
    ($name:ident($($x:ident),*)) => {
        Avx2(instruction!($name($($x.0),*)), instruction!($name($($x.1),*)))
    };
}

/// Two registers of AVX2.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256, __m256);

impl Lanes for Avx2 {
    const MANY: bool = true;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        let half = instruction!(_mm256_set1_ps(x));
        Self(half, half)
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        let (halves, _) = values.as_chunks::<8>();
        let lower = instruction!(_mm256_loadu_ps(halves[0].as_ptr()));
        let upper = instruction!(_mm256_loadu_ps(halves[1].as_ptr()));
        Self(lower, upper)
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        let (halves, _) = values.as_chunks_mut::<8>();
        instruction!(_mm256_storeu_ps(halves[0].as_mut_ptr(), self.0));
        instruction!(_mm256_storeu_ps(halves[1].as_mut_ptr(), self.1));
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        halves!(_mm256_add_ps(self, other))
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        halves!(_mm256_sub_ps(self, other))
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        halves!(_mm256_mul_ps(self, other))
    }

    #[inline(always)]
    fn over(self, other: Self) -> Self {
        halves!(_mm256_div_ps(self, other))
    }

    #[inline(always)]
    fn root(self) -> Self {
        halves!(_mm256_sqrt_ps(self))
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        halves!(_mm256_max_ps(self, other))
    }

    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        halves!(_mm256_min_ps(self, other))
    }

    #[inline(always)]
    fn times_plus(self, factor: Self, addend: Self) -> Self {
        halves!(_mm256_fmadd_ps(self, factor, addend))
    }

    #[inline(always)]
    fn where_positive(self, gate: Self) -> Self {
        halves!(masked(self, gate))
    }

    #[inline(always)]
    fn or_else(self, gate: Self, other: Self) -> Self {
        halves!(chosen(self, gate, other))
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        halves!(power_of_eight(self))
    }

    #[inline(always)]
    fn positive(self) -> u16 {
        let lower = instruction!(positive(self.0));
        let upper = instruction!(positive(self.1));
        u16::from(lower) | u16::from(upper) << 8
    }

    #[inline(always)]
    fn announce(values: &[[f32; LANES]]) {
        announce(values);
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        instruction!(sum_of_eight(_mm256_add_ps(self.0, self.1)))
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn sum_of_eight(x: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    let one = _mm_add_ss(two, _mm_shuffle_ps::<1>(two, two));
    _mm_cvtss_f32(one)
}

#[target_feature(enable = "avx2")]
#[inline]
fn masked(x: __m256, gate: __m256) -> __m256 {
    _mm256_and_ps(x, _mm256_cmp_ps::<_CMP_GT_OQ>(gate, _mm256_setzero_ps()))
}

#[target_feature(enable = "avx2")]
#[inline]
fn chosen(x: __m256, gate: __m256, other: __m256) -> __m256 {
    _mm256_blendv_ps(other, x, _mm256_cmp_ps::<_CMP_GT_OQ>(gate, _mm256_setzero_ps()))
}

#[target_feature(enable = "avx2")]
#[inline]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "eight bits")]
fn positive(x: __m256) -> u8 {
    _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_setzero_ps())) as u8
}

/// Two to the power of eight whole numbers.
#[target_feature(enable = "avx2")]
#[inline]
fn power_of_eight(n: __m256) -> __m256 {
    let shifted = _mm256_castps_si256(_mm256_add_ps(n, _mm256_set1_ps(ROUNDER)));
    let biased = _mm256_add_epi32(shifted, _mm256_set1_epi32(127));
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
}
