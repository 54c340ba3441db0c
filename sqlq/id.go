package sqlq

import (
	"crypto/rand"
	"database/sql/driver"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// ID identifies a message wherever it goes: a UUID, of version 7 if the library makes it. In JSON, logs and text it is what
// String writes; as a column or parameter of pgx and database/sql it is a uuid, or a text of that form.
type ID [16]byte

// NewID returns a fresh ID: the milliseconds since 1970, then 74 random bits (RFC 9562, version 7).
func NewID() ID {
	var id ID
	rand.Read(id[6:]) // never fails: crypto/rand.Read
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(time.Now().UnixMilli()))
	copy(id[:6], ms[2:])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseID reads the form that String writes.
func ParseID(s string) (ID, error) {
	if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		var id ID
		if _, err := hex.Decode(id[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:])); err == nil {
			return id, nil
		}
	}
	return ID{}, fmt.Errorf("message id %q is not a UUID, such as 01890a5d-ac96-774b-bcce-b302099a8057", s)
}

// String writes the ID in the usual form of a UUID, in lower case.
func (id ID) String() string {
	s := id.text()
	return string(s[:])
}

func (id ID) text() (s [36]byte) {
	hex.Encode(s[:8], id[:4])
	hex.Encode(s[9:13], id[4:6])
	hex.Encode(s[14:18], id[6:8])
	hex.Encode(s[19:23], id[8:10])
	hex.Encode(s[24:], id[10:])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return s
}

// MarshalText implements encoding.TextMarshaler: JSON and logs have what String writes.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it reads what ParseID reads.
func (id *ID) UnmarshalText(text []byte) error {
	read, err := ParseID(string(text))
	if err == nil {
		*id = read
	}
	return err
}

// UnmarshalJSON implements json.Unmarshaler: a string that ParseID reads, or, as it stands in messages that were sent before IDs
// were written as text, an array of 16 numbers. JSON's null leaves the ID as it is.
func (id *ID) UnmarshalJSON(value []byte) error {
	if string(value) == "null" {
		return nil
	}
	if value[0] != '[' {
		var text string
		if err := json.Unmarshal(value, &text); err != nil {
			return fmt.Errorf("message id: %w", err)
		}
		return id.UnmarshalText([]byte(text))
	}
	var bytes []json.Number
	if err := json.Unmarshal(value, &bytes); err != nil || len(bytes) != len(id) {
		return fmt.Errorf("message id %.100q is neither a UUID nor 16 numbers", value)
	}
	var read ID
	for i, b := range bytes {
		n, err := strconv.ParseUint(b.String(), 10, 8)
		if err != nil {
			return fmt.Errorf("message id %.100q: %w", value, err)
		}
		read[i] = byte(n)
	}
	*id = read
	return nil
}

// Value implements driver.Valuer: the text that String writes.
func (id ID) Value() (driver.Value, error) { return id.String(), nil }

// Scan implements sql.Scanner: a text that ParseID reads, or 16 bytes. Null is an error: scan into a *ID.
func (id *ID) Scan(value any) error {
	switch v := value.(type) {
	case string:
		return id.UnmarshalText([]byte(v))
	case []byte:
		if len(v) == len(id) {
			copy(id[:], v)
			return nil
		}
		return id.UnmarshalText(v)
	case [16]byte:
		*id = v
		return nil
	}
	return fmt.Errorf("cannot scan %T into a message id", value)
}

// UUIDValue implements pgtype.UUIDValuer, by which pgx passes an ID as a uuid.
func (id ID) UUIDValue() (pgtype.UUID, error) { return pgtype.UUID{Bytes: id, Valid: true}, nil }

// ScanUUID implements pgtype.UUIDScanner, by which pgx reads a uuid into an ID.
func (id *ID) ScanUUID(v pgtype.UUID) error {
	if !v.Valid {
		return errors.New("cannot scan null into a message id")
	}
	*id = v.Bytes
	return nil
}
