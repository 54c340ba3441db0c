package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// printYAML prints a value as YAML, with the names and the order that it has as JSON. Every reader of YAML, of version 1.1
// too, finds in it what a reader of JSON would have found there.
func (e *env) printYAML(v any) error {
	text, err := jsonLine(v)
	if err != nil {
		return err
	}
	document, err := yamlOf(text)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	encode := yaml.NewEncoder(&out)
	encode.SetIndent(2)
	if err := errors.Join(encode.Encode(document), encode.Close()); err != nil {
		return err
	}
	_, err = e.out.Write(escaped(out.Bytes())) // what is escaped stands in double quotes: see stringNode
	return err
}

// yamlOf makes a YAML document of a JSON text. What is nested too deep to be laid out stands in brackets.
func yamlOf(text []byte) (*yaml.Node, error) {
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber()
	b := yamlBuilder{in: in, deepest: layoutDepth(text)}
	return b.value(1)
}

type yamlBuilder struct {
	in      *json.Decoder
	deepest int
}

func (b *yamlBuilder) value(depth int) (*yaml.Node, error) {
	token, err := b.in.Token()
	if err != nil {
		return nil, err
	}
	switch v := token.(type) {
	case nil:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(v)}, nil
	case json.Number:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: yamlNumber(string(v))}, nil
	case string:
		return stringNode(v), nil
	}
	var style yaml.Style
	if depth > b.deepest {
		style = yaml.FlowStyle
	}
	if token == json.Delim('[') {
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: style}
		for b.in.More() {
			item, err := b.value(depth + 1)
			if err != nil {
				return nil, err
			}
			list.Content = append(list.Content, item)
		}
		_, err = b.in.Token()
		return list, err
	}
	object, at := &yaml.Node{Kind: yaml.MappingNode, Style: style}, map[string]int{}
	for b.in.More() {
		name, err := b.value(depth + 1)
		if err != nil {
			return nil, err
		}
		value, err := b.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if i, twice := at[name.Value]; twice { // YAML has each name once; the last one counts in JSON
			object.Content[i] = value
			continue
		}
		at[name.Value] = len(object.Content) + 1
		object.Content = append(object.Content, name, value)
	}
	_, err = b.in.Token()
	return object, err
}

// yamlNumber writes a JSON number so that YAML 1.1 takes it for one too: with a point and a sign where there is an exponent.
func yamlNumber(number string) string {
	at := strings.IndexAny(number, "eE")
	if at < 0 {
		return number
	}
	mantissa, exponent := number[:at], number[at+1:]
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	if exponent[0] != '+' && exponent[0] != '-' {
		exponent = "+" + exponent
	}
	return mantissa + "e" + exponent
}

// bare is what may stand without quotes, unless it is a word of YAML's: ids, and what begins with a letter. What stands
// further behind and would mislead a reader, the encoder sees itself.
var (
	bare     = regexp.MustCompile(`^(?:[\pL_/]|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$)`)
	reserved = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|true|false|null|inf|nan)$`)
)

// stringNode returns a string: bare where no reader takes that for anything else, as a block where it has several plain lines,
// else in double quotes.
func stringNode(text string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Style: yaml.DoubleQuotedStyle}
	shown := !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' })
	switch {
	case !shown || text == "":
	case !strings.ContainsAny(text, "\n\t"):
		if bare.MatchString(text) && !reserved.MatchString(text) {
			node.Style = 0
		}
	case plainLines(text):
		node.Style = yaml.LiteralStyle
	}
	return node
}

// plainLines reports whether a text of several lines can stand as a block.
func plainLines(text string) bool {
	if !strings.Contains(text, "\n") || strings.ContainsAny(text[:1], " \t\n") || strings.HasSuffix(text, "\n\n") {
		return false
	}
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); line != strings.TrimRight(line, " \t") {
			return false
		}
	}
	return true
}
