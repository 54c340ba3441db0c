package sqlq

// The places of mutexes in the order of locks: while one is held only those behind it may be taken.
type (
	ofDispatcher struct{}
	ofPauses     struct{}
	ofHand       struct{}
	ofPart       struct{}
	ofBreaker    struct{}
	ofLife       struct{}
)

func (ofDispatcher) rank() int { return 1 }
func (ofPauses) rank() int     { return 2 }
func (ofHand) rank() int       { return 3 }
func (ofPart) rank() int       { return 4 }
func (ofBreaker) rank() int    { return 5 }
func (ofLife) rank() int       { return 6 }
