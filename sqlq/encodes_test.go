package sqlq

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// What is not tried before it is sent, pgx encodes.
func TestWhatNeedNotBeTriedIsEncoded(t *testing.T) {
	t.Parallel()
	types := pgtype.NewMap()
	oids := []uint32{
		pgtype.TextOID, pgtype.VarcharOID, pgtype.ByteaOID, pgtype.BoolOID, pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.TimestamptzOID, pgtype.UUIDOID, pgtype.JSONBOID,
		pgtype.TextArrayOID, pgtype.VarcharArrayOID, pgtype.Int2ArrayOID, pgtype.Int4ArrayOID, pgtype.Int8ArrayOID,
	}
	sure := 0
	for _, arg := range []any{
		"text", []byte("bytes"), true, 7, 1 << 40, int32(7), int64(7), int64(1) << 40, time.Now(), []int{1 << 40}, []int(nil), []int32{7}, []int64{1 << 40}, []string{"text", ""}, []string{},
		[]any{"text"}, struct{}{}, nil,
	} {
		for _, oid := range oids {
			if !encodes(oid, arg) {
				continue
			}
			sure++
			if _, err := types.Encode(oid, pgtype.BinaryFormatCode, arg, nil); err != nil {
				t.Errorf("%#v as type %d: %v", arg, oid, err)
			}
		}
	}
	if sure < 15 {
		t.Errorf("%d kinds of arguments need not be tried", sure)
	}
}
