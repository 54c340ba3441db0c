package bouncer

// ownerOf is for root, whom there is none of.
func ownerOf(string) string { return "" }
