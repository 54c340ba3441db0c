package sqlq

// How deliveries leave the hand by themselves, and not with a batch: those that are leased or removed, and those whose batch's
// transaction is gone.

// finish records a handled delivery; a leased one is to be settled by the next receiver that is free. The caller has mu.
func (h *hand) finish(d *delivery) {
	d.endProbe()
	switch d.state {
	case leasing:
		h.move(d, leasingDecided)
	case recalled:
		h.move(d, decided) // it is queued already
	case returning:
		h.move(d, settling)
	case lost:
		h.move(d, freed)
		h.log.Warn("sqlq: a handler finished after its message was given to another receiver", "endpoint", h.endpoint.Name, "message", d.stored.id)
	default:
		h.move(d, decided)
		d.custody.handlerEnded(h, d)
	}
}

// queueDecided has a leased or removed delivery settled by the next receiver that is free. The caller has mu.
func (h *hand) queueDecided(d *delivery) {
	if d.state != decided {
		h.move(d, decided)
	}
	h.finished = append(h.finished, d)
}

// returnUnbegun gives a leased or removed message back whose handler has not begun. The caller has mu.
func (h *hand) returnUnbegun(d *delivery) {
	d.outcome = outcome{verdict: giveBack}
	h.queueDecided(d)
}

// takeFinished takes what is to be settled by itself; a settle or putOff follows. The caller has mu.
func (h *hand) takeFinished() (ds []*delivery) {
	ds, h.finished = h.finished, nil
	for _, d := range ds {
		if d.state == recalled {
			h.move(d, returning)
		} else {
			h.move(d, settling)
		}
	}
	return ds
}

// toSettle is takeFinished for who does not have mu.
func (h *hand) toSettle() []*delivery {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.takeFinished()
}

// settleLater has a delivery, whose end is known, settled by the next receiver that is free.
func (h *hand) settleLater(d *delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queueDecided(d)
}

// stored forgets deliveries that were settled by themselves, or are others' by now.
func (h *hand) stored(ds []*delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range ds {
		if d.state == returning {
			h.move(d, lost)
		} else {
			h.move(d, settled)
		}
		d.custody.dismiss(h, d)
	}
}

// putOff has deliveries settled by themselves later.
func (h *hand) putOff(ds []*delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range ds {
		if d.state == returning {
			h.move(d, recalled)
			h.finished = append(h.finished, d)
		} else {
			h.queueDecided(d)
		}
	}
}

// forget drops a leased delivery that was settled, or is another's.
func (h *hand) forget(d *delivery, as deliveryState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.move(d, as)
	d.custody.dismiss(h, d)
}

// keep leaves a delivery whose end the server refuses to be stored later.
func (h *hand) keep(d *delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.move(d, kept)
}

// retryKept has a kept delivery settled now.
func (h *hand) retryKept(d *delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.state == kept {
		h.queueDecided(d)
	}
}

// releaseKept is the drain's: what is kept is settled once more, leased messages by giving them back.
func (h *hand) releaseKept() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.leases {
		if d.state == kept {
			h.returnUnbegun(d)
		}
	}
	for d := range h.removed {
		if d.state == kept {
			h.queueDecided(d)
		}
	}
}

// giveBackWaiting returns leased and removed messages that have not begun to their queue; held ones go with their batch.
func (h *hand) giveBackWaiting() { h.withdrawSingle(func(*delivery) bool { return true }) }

// withdrawSingle is giveBackWaiting for those messages that fit.
func (h *hand) withdrawSingle(fits func(*delivery) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.batches {
		if b.custody.isSingle() {
			b.withdraw(h, fits)
		}
	}
}

// giveBackAll returns every leased message whose handler has not finished; what the handler does yet is not recorded.
func (h *hand) giveBackAll() {
	h.giveBackWaiting()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recalls = true
	for _, d := range h.leases {
		switch d.state {
		case lined:
			h.returnUnbegun(d)
		case running:
			h.recall(d)
		}
	}
}

// recall takes a leased message back from its handler, which runs on. The caller has mu.
func (h *hand) recall(d *delivery) {
	h.log.Warn("sqlq: a handler did not finish before the drain ended; its message goes back", "endpoint", h.endpoint.Name, "type", d.stored.messageType, "message", d.stored.id)
	d.back = true
	h.move(d, recalled)
	h.finished = append(h.finished, d)
}

// beginLined begins a leased message that waited for its turn on the connection, and says whether it is still to be handled.
func (h *hand) beginLined(d *delivery) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return d.state == lined && h.move(d, running)
}

// giveBackLined returns leased messages that waited for their turn, and will not be handled here, to their queue.
func (h *hand) giveBackLined(ds []*delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range ds {
		if d.state == lined { // else the drain has done it
			h.returnUnbegun(d)
		}
	}
}

// endLeasedTx notes that the HandleTx handler of a leased message has ended, and says whether the message is the caller's to settle: not
// if the drain has taken it back.
func (h *hand) endLeasedTx(d *delivery) (mine bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch d.state {
	case running:
		return h.move(d, decided)
	case recalled:
		h.move(d, decided)
	case returning:
		h.move(d, settling)
	case lost:
		h.move(d, freed)
	}
	return false
}

// giveBackLeased takes leased messages in hand that could not be made ready, to be given back.
func (h *hand) giveBackLeased(ds []*delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range ds {
		h.leases[d.lease] = d
		h.returnUnbegun(d)
	}
}

// undo leaves messages that were decided to whoever fetches them: what decided them is undone.
func (h *hand) undo(ds []*delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range ds {
		if d.state == decided {
			h.move(d, freed)
		}
	}
}
