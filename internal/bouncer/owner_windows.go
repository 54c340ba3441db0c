package bouncer

// ownerOf is for root, which does not exist here.
func ownerOf(string) string { return "" }
