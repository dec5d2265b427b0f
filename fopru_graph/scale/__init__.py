"""A pipeline over a million pictures: parts, their folder, and the engines that work through them."""
