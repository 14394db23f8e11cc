-- :checkhealth lsp_charrnn
local M = {}

function M.check()
  local health, commands = vim.health, require('lsp_charrnn.commands')
  health.start('lsp-charrnn')
  if vim.fn.has('nvim-0.10') == 0 then return health.error('Neovim 0.10 or newer is needed') end
  local builtin = require('lsp_charrnn').ghost() == require('lsp_charrnn.builtin')
  health.ok('ghost text: ' .. (builtin and "Neovim's inline completion" or "the plugin's own"))

  local program = commands.program('doctor')
  if vim.fn.executable(program[1]) == 0 then
    health.error(program[1] .. ' cannot be run', {
      'Put lsp-charrnn on PATH, or name it: vim.g.lsp_charrnn_cmd = { "/path/to/lsp-charrnn", "serve" }',
    })
  else
    local ran = vim.system(program, { text = true }):wait(60000)
    local said = vim.trim(ran.stdout .. ran.stderr)
    if ran.code == 0 then health.ok(said) else health.warn(said) end -- it may be no more than a busy machine
  end

  local clients = vim.lsp.get_clients({ name = 'lsp_charrnn' })
  if #clients == 0 then
    local enable = vim.lsp.enable and ", and vim.lsp.enable('lsp_charrnn') in init.lua" or ''
    health.warn('no server is running', { 'It is started when a file in a programming language is opened' .. enable })
  end
  for _, client in ipairs(clients) do
    local params = { command = 'lspCharrnn.status' }
    local buf = next(client.attached_buffers)
    local answer = require('lsp_charrnn.own').call(client, 'request_sync', 'workspace/executeCommand', params, 5000, buf)
    local result = answer and answer.result
    if not result then
      health.error(('the server (client %d) does not answer'):format(client.id))
    elseif type(result.problem) == 'string' then
      health.error(result.problem)
    else
      health.ok(('the server is %s, process %d, for %s'):format(result.state, result.pid, client.config.root_dir or 'no project'))
    end
  end
end

return M
