// Writes what Traefik makes of the rules it reads, a JSON string a line, in its syntax v2:
//
//	go run v2.go CLIENTS.json < RULES > traefik_v2.jsonl
//
// It needs a module of its own that requires github.com/traefik/traefik/v3. CLIENTS.json is the first line of the table:
// a digit for each name, client and ALPN says whether the rule matched. A rule that Traefik refuses has no priority.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"

	mux "github.com/traefik/traefik/v3/pkg/muxer/tcp"
	"github.com/traefik/traefik/v3/pkg/tcp"
)

type clients struct {
	Names   []string   `json:"names"`
	Clients []string   `json:"clients"`
	Alpn    [][]string `json:"alpn"`
}

type answer struct {
	Rule     string `json:"rule"`
	Priority *int   `json:"priority,omitempty"`
	Matches  string `json:"matches,omitempty"`
}

func main() {
	file, err := os.ReadFile(os.Args[1])
	check(err)
	var all clients
	check(json.Unmarshal(file, &all))
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	check(out.Encode(all))
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var rule string
		check(json.Unmarshal(lines.Bytes(), &rule))
		check(out.Encode(ask(rule, all)))
	}
	check(lines.Err())
}

func ask(rule string, all clients) answer {
	found := answer{Rule: rule}
	muxer, err := mux.NewMuxer(nil)
	check(err)
	handler := tcp.HandlerFunc(func(tcp.WriteCloser) {})
	priority := mux.GetRulePriority(rule)
	if err := muxer.AddRoute(rule, "v2", priority, "", handler); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return found
	}
	found.Priority = &priority
	for _, name := range all.Names {
		for _, client := range all.Clients {
			for _, alpn := range all.Alpn {
				remote := net.TCPAddr{IP: net.ParseIP(client), Port: 1}
				data, err := mux.NewConnData(name, &remote, alpn)
				check(err)
				if matched, _ := muxer.Match(data); matched != nil {
					found.Matches += "1"
				} else {
					found.Matches += "0"
				}
			}
		}
	}
	return found
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
