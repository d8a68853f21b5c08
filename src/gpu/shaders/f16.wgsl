// By hand: WGSL lets `unpack2x16float` flush subnormals, which are normal numbers here. Weights are
// finite, so no exponent is all ones.
fn half(bits: u32) -> f32 {
    let sign = (bits & 0x8000u) << 16u;
    let exponent = (bits >> 10u) & 31u;
    let mantissa = bits & 0x3ffu;
    let small = f32(mantissa) * 5.9604644775390625e-8;
    let magnitude = select(((exponent + 112u) << 23u) | (mantissa << 13u), bitcast<u32>(small), exponent == 0u);
    return bitcast<f32>(sign | magnitude);
}

fn quad(held: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(half(held.x & 0xffffu), half(held.x >> 16u), half(held.y & 0xffffu), half(held.y >> 16u));
}
