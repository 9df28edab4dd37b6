"""Models of the hub, on tiny ones that tests make and on the one that a package ships."""
