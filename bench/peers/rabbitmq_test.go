package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
)

// What is measured of RabbitMQ works, also where there is no RabbitMQ: against a broker that knows as much of AMQP as
// rabbitSystem uses.
func TestRabbitWithoutBroker(t *testing.T) {
	fake := startFakeBroker(t)
	l := newRig(t)
	l.broker = &broker{url: fake.url}
	defer func() { l.broker = nil }() // it has no process that the rig could stop
	for _, s := range rabbitSubjects() {
		if err := l.with(t.Context(), s, func(ctx context.Context, sys system, _ string) error { return handlesEachOnce(ctx, l, sys) }); err != nil {
			t.Errorf("%s: %v", s.title, err)
		}
	}
	_, failed, err := l.run(t.Context(), rabbitSubjects())
	if err != nil || len(failed) > 0 {
		t.Error(failed, err)
	}
	if err := fake.complaint(); err != nil {
		t.Error(err)
	}
}

// fakeBroker keeps queues in memory. It confirms what is published, keeps to the prefetch, and takes acknowledgements of
// several messages. What a closed channel has not acknowledged goes back.
type fakeBroker struct {
	url string

	mu     sync.Mutex
	queues map[string]*fakeQueue
	wrong  []error
}

type fakeQueue struct {
	ready    [][]byte
	consumer *fakeChannel
}

type fakeChannel struct {
	conn     *fakeConn
	number   uint16
	prefetch int
	confirms uint64 // so many were published; 0 until confirm.select
	queue    *fakeQueue
	tag      string
	given    uint64 // delivery tags
	unacked  []fakeDelivery
	key      string // of the message that is coming in
	size     uint64
	body     []byte
}

type fakeDelivery struct {
	tag  uint64
	body []byte
}

type fakeConn struct {
	broker   *fakeBroker
	w        *bufio.Writer
	channels map[uint16]*fakeChannel
}

func startFakeBroker(t *testing.T) *fakeBroker {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &fakeBroker{url: fmt.Sprintf("amqp://guest:guest@%s/", listener.Addr()), queues: map[string]*fakeQueue{}}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				if err := b.serve(conn); err != nil && !errors.Is(err, io.EOF) {
					b.mu.Lock()
					defer b.mu.Unlock()
					b.wrong = append(b.wrong, err)
				}
			})
		}
	})
	t.Cleanup(func() { listener.Close(); conns.Wait() })
	return b
}

func (b *fakeBroker) complaint() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.wrong...)
}

// fields writes and reads the values of AMQP's methods.
type fields struct{ bytes.Buffer }

func with(values ...any) []byte {
	var f fields
	for _, v := range values {
		if text, is := v.(string); is {
			f.WriteByte(byte(len(text)))
			f.WriteString(text)
			continue
		}
		_ = binary.Write(&f, binary.BigEndian, v)
	}
	return f.Bytes()
}

func (f *fields) short() (n uint16) { _ = binary.Read(f, binary.BigEndian, &n); return n }
func (f *fields) long() (n uint64)  { _ = binary.Read(f, binary.BigEndian, &n); return n }
func (f *fields) text() string {
	n, _ := f.ReadByte()
	return string(f.Next(int(n)))
}

func (c *fakeConn) frame(kind byte, channel uint16, payload []byte) {
	_ = binary.Write(c.w, binary.BigEndian, kind)
	_ = binary.Write(c.w, binary.BigEndian, channel)
	_ = binary.Write(c.w, binary.BigEndian, uint32(len(payload)))
	c.w.Write(payload)
	c.w.WriteByte(0xCE)
}

func (c *fakeConn) method(channel, class, method uint16, values ...any) {
	c.frame(1, channel, with(append([]any{class, method}, values...)...))
}

func (b *fakeBroker) serve(conn net.Conn) error {
	c := &fakeConn{broker: b, w: bufio.NewWriter(conn), channels: map[uint16]*fakeChannel{}}
	r := bufio.NewReader(conn)
	if _, err := io.ReadFull(r, make([]byte, 8)); err != nil { // "AMQP" and the version
		return err
	}
	b.locked(func() {
		c.method(0, 10, 10, byte(0), byte(9), uint32(0), uint32(5), []byte("PLAIN"), uint32(5), []byte("en_US"))
		c.w.Flush()
	})
	defer b.locked(func() {
		for _, ch := range c.channels {
			ch.close()
		}
	})
	for {
		var head struct {
			Kind    byte
			Channel uint16
			Size    uint32
		}
		if err := binary.Read(r, binary.BigEndian, &head); err != nil {
			return err
		}
		payload := make([]byte, head.Size+1)
		if _, err := io.ReadFull(r, payload); err != nil {
			return err
		}
		var err error
		b.locked(func() {
			err = c.take(head.Kind, head.Channel, &fields{*bytes.NewBuffer(payload[:head.Size])})
			c.w.Flush()
		})
		if err != nil {
			return err
		}
	}
}

func (b *fakeBroker) locked(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (c *fakeConn) take(kind byte, number uint16, f *fields) error {
	ch := c.channels[number]
	switch kind {
	case 2: // header
		f.Next(4)
		ch.size, ch.body = f.long(), nil
		return nil
	case 3: // body
		ch.body = append(ch.body, f.Bytes()...)
		if uint64(len(ch.body)) == ch.size {
			ch.published()
		}
		return nil
	case 8: // heartbeat
		return nil
	}
	class, method := f.short(), f.short()
	switch [2]uint16{class, method} {
	case [2]uint16{10, 11}: // connection.start-ok
		c.method(0, 10, 30, uint16(2047), uint32(128<<10), uint16(0))
	case [2]uint16{10, 31}: // tune-ok
	case [2]uint16{10, 40}: // open
		c.method(0, 10, 41, "")
	case [2]uint16{10, 50}: // close
		c.method(0, 10, 51)
	case [2]uint16{20, 10}: // channel.open
		c.channels[number] = &fakeChannel{conn: c, number: number}
		c.method(number, 20, 11, uint32(0))
	case [2]uint16{20, 40}: // close
		ch.close()
		delete(c.channels, number)
		c.method(number, 20, 41)
	case [2]uint16{85, 10}: // confirm.select
		c.method(number, 85, 11)
	case [2]uint16{50, 10}: // queue.declare
		f.short()
		name := f.text()
		if c.broker.queues[name] == nil {
			c.broker.queues[name] = &fakeQueue{}
		}
		c.method(number, 50, 11, name, uint32(len(c.broker.queues[name].ready)), uint32(0))
	case [2]uint16{50, 40}: // delete
		f.short()
		delete(c.broker.queues, f.text())
		c.method(number, 50, 41, uint32(0))
	case [2]uint16{60, 10}: // basic.qos
		f.Next(4)
		ch.prefetch = int(f.short())
		c.method(number, 60, 11)
	case [2]uint16{60, 20}: // consume
		f.short()
		ch.queue, ch.tag = c.broker.queues[f.text()], f.text()
		ch.queue.consumer = ch
		c.method(number, 60, 21, ch.tag)
		ch.deliver()
	case [2]uint16{60, 30}: // cancel
		ch.queue.consumer = nil
		c.method(number, 60, 31, ch.tag)
	case [2]uint16{60, 40}: // publish
		f.short()
		f.text()
		ch.key = f.text()
	case [2]uint16{60, 80}: // ack
		return ch.acked(f.long(), f.Next(1)[0]&1 == 1)
	default:
		return fmt.Errorf("fake broker: method %d.%d", class, method)
	}
	return nil
}

func (ch *fakeChannel) published() {
	ch.confirms++
	ch.conn.method(ch.number, 60, 80, ch.confirms, false)
	q := ch.conn.broker.queues[ch.key]
	q.ready = append(q.ready, ch.body)
	if q.consumer != nil {
		q.consumer.deliver()
	}
}

// deliver gives the consumer what the prefetch allows.
func (ch *fakeChannel) deliver() {
	for len(ch.queue.ready) > 0 && len(ch.unacked) < ch.prefetch && ch.queue.consumer == ch {
		body := ch.queue.ready[0]
		ch.queue.ready = ch.queue.ready[1:]
		ch.given++
		ch.unacked = append(ch.unacked, fakeDelivery{ch.given, body})
		ch.conn.method(ch.number, 60, 60, ch.tag, ch.given, false, "", "")
		ch.conn.frame(2, ch.number, with(uint16(60), uint16(0), uint64(len(body)), uint16(0)))
		ch.conn.frame(3, ch.number, body)
	}
	ch.conn.w.Flush()
}

func (ch *fakeChannel) acked(tag uint64, several bool) error {
	before := len(ch.unacked)
	ch.unacked = slices.DeleteFunc(ch.unacked, func(d fakeDelivery) bool { return d.tag == tag || several && d.tag < tag })
	if len(ch.unacked) == before {
		return fmt.Errorf("fake broker: delivery tag %d is not known", tag)
	}
	ch.deliver()
	return nil
}

func (ch *fakeChannel) close() {
	if ch.queue == nil {
		return
	}
	ch.queue.consumer = nil
	for _, d := range ch.unacked {
		ch.queue.ready = append(ch.queue.ready, d.body)
	}
}
