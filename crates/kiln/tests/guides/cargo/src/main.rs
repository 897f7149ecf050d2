fn main() { println!("counted {}", itoa::Buffer::new().format(42)); }
