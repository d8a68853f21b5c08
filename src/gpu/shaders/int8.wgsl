// Sign-extended by shifts; integers of eight bits are exact as f32.
fn quad(held: u32) -> vec4<f32> {
    let signed = bitcast<i32>(held);
    return vec4<f32>(f32((signed << 24u) >> 24u), f32((signed << 16u) >> 24u), f32((signed << 8u) >> 24u), f32(signed >> 24u));
}
