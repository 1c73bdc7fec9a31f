"""What differs between two trees, told the way git tells it; pure functions over values."""
